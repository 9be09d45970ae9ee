"""Every test that the library offers, tried on data without effect, and on data with one: `make validation`."""
