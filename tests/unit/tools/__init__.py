"""Tests of the tools, without anything outside."""
