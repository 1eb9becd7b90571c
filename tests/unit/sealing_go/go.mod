module runkeys.dev/tests/sealing

go 1.26.0
