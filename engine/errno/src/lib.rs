//! DAOS error numbers: the codes that peers, modules and tools see.
