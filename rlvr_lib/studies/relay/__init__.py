"""The runs behind chapter 3: what hands over from one length of a chain to the next, on all three testbeds."""
