"""The commands, one file for what belongs together. Thin: they parse, call and print; heavy imports are inside them."""
