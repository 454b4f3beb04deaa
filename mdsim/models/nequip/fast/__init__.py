"""NequIP with frozen parameters: tabulated weights in compiled loops, or cuEquivariance's kernels."""
