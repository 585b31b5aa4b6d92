//! Topics and what is said about them.

pub mod broker_config;
pub mod topic_config;
