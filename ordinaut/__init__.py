"""Ordinaut: an event-sourced scheduling and workflow backend."""

__version__ = "0.1.0"
