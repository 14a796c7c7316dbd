//! The management module: DAOS dRPC module 2, and Keel's own methods.
