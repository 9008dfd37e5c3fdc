"""Prints the broken variants that the gate runs; `.ci/run` calls this. The others are run by hand."""

from tests.chaos.guests import guests

IN_GATE = ["w1", "probe-pings-only", "sign-out-delivers-nothing"]

if __name__ == "__main__":
    print(*IN_GATE, *(variant for guest in guests() for variant in guest.in_gate))
