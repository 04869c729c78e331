"""Tests of the package `strategies.own`."""
