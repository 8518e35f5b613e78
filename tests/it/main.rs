//! The program as people run it: started, spoken to over sockets, stopped by signals.
//!
//! - `server` a sluice of the test's own, and HTTP by hand
//! - `command_line` what is printed, and exit codes
//! - `stop` how it ends

mod command_line;
mod server;
mod stop;
