"""What is pruned, what is kept and what it costs: decisions in numpy, surgery in torch."""
