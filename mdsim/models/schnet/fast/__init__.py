"""SchNet with frozen parameters: tabulated filters in compiled loops."""
