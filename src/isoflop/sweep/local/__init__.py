"""Processes of this machine: the pool that trains, and probes of its speed."""
