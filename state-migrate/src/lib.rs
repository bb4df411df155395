//! state-migrate
