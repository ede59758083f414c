//! Where the automatic ports go, and when they will run out: what the programs have counted, made into
//! figures. Functions of their arguments; who reads the kernel's tables is `commands::churn`.

pub mod causes;
pub mod figures;
pub mod forecast;
pub mod histogram;
pub mod limits;
pub mod model;
pub mod nat;
pub mod rows;
