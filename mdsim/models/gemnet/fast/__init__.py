"""GemNet-T with frozen parameters: forces without a graph, by a hand-written backward pass."""
