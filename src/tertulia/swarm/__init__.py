"""Swarms: client sessions with navigation, policies and a bus."""
