//! actuators
