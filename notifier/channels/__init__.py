"""Outgoing channels, one small file each."""
