"""Probing of layers and neurons: linear probes, time courses, decoders of acoustics, proxies, speaker space."""
