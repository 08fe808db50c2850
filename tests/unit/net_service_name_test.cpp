#include <gtest/gtest.h>

#include "net/service_name.h"

namespace pulga {
namespace {

std::string Meant(std::string_view name) {
  const auto service = ParseServiceName(name);
  if (!service) return "somebody else";
  return service->is_gateway() ? "gateway" : service->name_space + "/" + service->function;
}

TEST(ServiceName, OfTheGateway) {
  for (const char* name :
       {"gateway", "gateway.openfaas", "pulga", "gateway.openfaas.svc.cluster.local"}) {
    EXPECT_EQ(Meant(name), "gateway") << name;
  }
}

TEST(ServiceName, OfFunctions) {
  EXPECT_EQ(Meant("hello"), "openfaas-fn/hello");
  EXPECT_EQ(Meant("hello.openfaas-fn"), "openfaas-fn/hello");
  EXPECT_EQ(Meant("gateway.openfaas-fn"), "openfaas-fn/gateway");
  EXPECT_EQ(Meant("hello.dev.svc.cluster.local"), "dev/hello");
  EXPECT_EQ(Meant(std::string(63, 'a')), "openfaas-fn/" + std::string(63, 'a'));
}

TEST(ServiceName, IsNeverADomainOutThere) {
  for (const char* name : {"hello.dev", "www.example.com", "10.83.0.1", "svc.cluster.local",
                           "hello.svc.cluster.local", "a.b.dev.svc.cluster.local"}) {
    EXPECT_EQ(Meant(name), "somebody else") << name;
  }
}

TEST(ServiceName, IsMadeOfWhatFunctionsMayBeCalled) {
  for (const std::string& name :
       {std::string(), std::string("."), std::string("localhost"), std::string("Hello"),
        std::string("-a"), std::string("a-"), std::string("a_b"), std::string("a/b"),
        std::string("[::1]"), std::string("a.."), std::string(".openfaas-fn"),
        std::string("-.openfaas-fn"), std::string(64, 'a')}) {
    EXPECT_EQ(Meant(name), "somebody else") << name;
  }
}

}  // namespace
}  // namespace pulga
