"""Runs that notebooks and tests share: numbers in, a frozen record out; no claims, no printing, no figures."""
