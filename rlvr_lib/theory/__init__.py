"""The theorems as pure functions of scored responses: no testbeds, no runs, no trainer."""
