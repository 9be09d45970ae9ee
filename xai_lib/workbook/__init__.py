"""What every notebook does first, where its results go, and how all are run."""

from .notebook import Run, fingerprint, netcdf_safe, seed_everything, setup

__all__ = ["Run", "fingerprint", "netcdf_safe", "seed_everything", "setup"]
