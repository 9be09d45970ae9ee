"""What layers and neurons encode: probes, courses in time, decoders of acoustics, proxies, speaker space."""
