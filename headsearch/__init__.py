"""headsearch: find the auxiliary head that makes a base vision model better, before anyone pays for pretraining."""

__version__ = "0.1.0"
