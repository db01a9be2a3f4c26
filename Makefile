# For hands that are used to make. The commands themselves are in ./dev.
.PHONY: demo test lint chaos lock help
help demo test lint chaos lock:
	./dev $@
