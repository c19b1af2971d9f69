"""Directions of the residual stream: steering vectors, probes, features of dictionaries, and ones that mean nothing."""
