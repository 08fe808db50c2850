// pulga-netadmin: one job of net_job.h, then it ends. Started by the launcher with the capabilities
// it needs and none else; whatever parses or composes netfilter messages runs inside the router's
// own user namespace, where CAP_NET_ADMIN means the router's network namespace and no other.
#include "net/net_admin.h"

int main() { return pulga::ServeNetJob(); }
