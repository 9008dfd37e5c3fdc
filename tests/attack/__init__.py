"""Attackers of many kinds on a fresh app, and what each of them could take: `make attack`."""
