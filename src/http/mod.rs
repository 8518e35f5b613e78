mod reader;
mod sse;

#[cfg(test)]
mod reader_test;
