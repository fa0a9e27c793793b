// Found in place of libtorch's header when libtorch is not there, as .cargo/config.toml puts this folder behind the
// real one. A missing include is the one error after which every compiler stops at once.
#include <LIBTORCH IS NOT THERE: run `make setup` first (or `make build`, which does both)>
