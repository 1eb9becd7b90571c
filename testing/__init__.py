"""What tests, bench and scripts share: real clusters, operators in them, and a namespace to try things in."""
