"""GemNet-T (Gasteiger et al., NeurIPS 2021, arXiv 2106.08903)."""
