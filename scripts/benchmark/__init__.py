"""The benchmark: distprune beside a hand-written script, and each of its ideas by itself."""
