mod reader;
mod sse;
