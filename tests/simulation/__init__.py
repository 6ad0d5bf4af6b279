"""The simulation layer: real cores on a virtual clock and a virtual network, faults by seed."""
