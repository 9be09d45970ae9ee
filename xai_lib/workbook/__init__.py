"""Setup of the notebooks, storage of their results, and the command line that runs them."""

from .notebook import Run, fingerprint, netcdf_safe, seed_everything, setup

__all__ = ["Run", "fingerprint", "netcdf_safe", "seed_everything", "setup"]
