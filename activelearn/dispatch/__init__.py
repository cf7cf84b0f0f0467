"""Run tasks through dpdispatcher: once each, followed after a crash, judged by their outputs."""
