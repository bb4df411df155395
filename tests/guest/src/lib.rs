//! tests/guest
