"""Inspection of data sets before training (`mdsim data check`)."""
