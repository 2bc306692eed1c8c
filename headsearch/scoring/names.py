"""Names of the discrepancy measures and of the measures of quality. No torch here: an experiment can be checked without computing anything."""

MEASURES: tuple[str, ...] = tuple(
    f"{measure}.{samples}.{side}"
    for measure in ("cka", "mutual_knn", "procrustes")
    for samples in ("embedding", "tokens")
    for side in ("output", "change")
)
"""`<measure>.<embedding|tokens>.<output|change>`."""

QUALITIES: tuple[str, ...] = tuple(
    f"{measure}.{of}" for of in ("base", "head") for measure in ("retrieval", "alignment", "uniformity")
)
"""`<retrieval|alignment|uniformity>.<base|head>`."""
