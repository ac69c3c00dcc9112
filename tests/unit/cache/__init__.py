"""Unit tests of the cache core, on fakes and a clock that only the tests advance."""
