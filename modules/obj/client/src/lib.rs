//! Client of the object module: pools, containers, put and get of large objects.
