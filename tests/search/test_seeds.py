import hashlib

from headsearch.search.seeds import search_seed, trial_seed


def test_a_seed_is_the_first_63_bits_of_a_sha256_of_its_parts() -> None:
    digest = hashlib.sha256(b'["trial", 7, "vit-d1", 2]').hexdigest()
    assert trial_seed(7, "vit-d1", 2) == int(digest[:16], 16) // 2


def test_seeds_differ_in_every_part_and_fit_63_bits() -> None:
    seeds = {trial_seed(s, h, r) for s in range(5) for h in ("a", "b", "none") for r in range(5)}
    assert len(seeds) == 75
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_types_are_told_apart() -> None:
    assert len({search_seed("1"), search_seed(1), search_seed(True), search_seed(None)}) == 4
