// The pure parts of pulga-fetcher: URLs, addresses, proxies, challenges, credentials, orders.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include "base/text.h"
#include "images/fetch/auth_challenge.h"
#include "images/fetch/fetch_wire.h"
#include "images/fetch/net_address.h"
#include "images/fetch/proxy_choice.h"
#include "images/fetch/registry_client.h"
#include "images/fetch/registry_login.h"
#include "images/fetch/url.h"

namespace pulga {
namespace {

std::string Parsed(std::string_view text) {
  const auto url = ParseUrl(text);
  return url.ok() ? url->ToString() : "refused";
}

TEST(Urls, AreReadStrictly) {
  EXPECT_EQ(Parsed("HTTPS://Registry.Example/v2/A?x=%20y"), "https://registry.example/v2/A?x=%20y");
  EXPECT_EQ(Parsed("http://[::1]:5000"), "http://[::1]:5000/");
  EXPECT_EQ(Parsed("https://h:443/a#b"), "https://h/a");
  EXPECT_EQ(Parsed("https://h?x=/"), "https://h/?x=/");
  for (const char* bad : {"", "h/v2", "file:///etc/passwd", "ftp://h/", "https://", "https://:1/",
                          "https://h:0/", "https://h:65536/", "https://h:x/", "https://user@h/",
                          "https://u:p@h/", "https://h /", "https://h\\@evil/",
                          "https://h\r\nHost: x/", "https://[zz]/", "gopher://h/", "https://-h/"}) {
    EXPECT_EQ(Parsed(bad), "refused") << bad;
  }
}

TEST(Urls, LocationsAreSeenFromWhereTheyCameFrom) {
  const Url base = *ParseUrl("https://r:5000/v2/a/blobs/x?q=1");
  EXPECT_EQ(ResolveUrl(base, "https://cdn.example/b")->ToString(), "https://cdn.example/b");
  EXPECT_EQ(ResolveUrl(base, "//cdn/b")->ToString(), "https://cdn/b");
  EXPECT_EQ(ResolveUrl(base, "/b?c=http://x")->ToString(), "https://r:5000/b?c=http://x");
  EXPECT_EQ(ResolveUrl(base, "y")->ToString(), "https://r:5000/v2/a/blobs/y");
  EXPECT_EQ(ResolveUrl(base, "?z")->ToString(), "https://r:5000/v2/a/blobs/x?z");
  EXPECT_FALSE(ResolveUrl(base, "file:///etc/passwd").ok());
  EXPECT_FALSE(ResolveUrl(base, "https://h/\r\nX: y").ok());
}

TEST(Urls, OriginsDifferByAnyPart) {
  const Url a = *ParseUrl("https://h/1");
  EXPECT_TRUE(a.SameOrigin(*ParseUrl("https://H:443/2")));
  EXPECT_FALSE(a.SameOrigin(*ParseUrl("http://h/1")));
  EXPECT_FALSE(a.SameOrigin(*ParseUrl("https://h:444/1")));
  EXPECT_FALSE(a.SameOrigin(*ParseUrl("https://h.x/1")));
}

sockaddr_storage AddressOf(const char* text) {
  sockaddr_storage address = {};
  auto& v4 = reinterpret_cast<sockaddr_in&>(address);
  v4.sin_family = AF_INET;
  if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) return address;
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address);
  v6.sin6_family = AF_INET6;
  EXPECT_EQ(inet_pton(AF_INET6, text, &v6.sin6_addr), 1) << text;
  return address;
}

AddressKind KindOf(const char* text) {
  const sockaddr_storage address = AddressOf(text);
  return KindOfAddress(reinterpret_cast<const sockaddr&>(address));
}

TEST(NetAddresses, AreSortedByHowPrivateTheyAre) {
  for (const char* text :
       {"1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1", "64:ff9b::101:101"})
    EXPECT_EQ(KindOf(text), AddressKind::kPublic) << text;
  for (const char* text : {"10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
                           "fd00::1", "::ffff:10.0.0.1", "2002:0a00:0001::1"})
    EXPECT_EQ(KindOf(text), AddressKind::kPrivate) << text;
  for (const char* text : {"127.0.0.1", "127.255.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"})
    EXPECT_EQ(KindOf(text), AddressKind::kLoopback) << text;
  for (const char* text : {"169.254.169.254", "224.0.0.1", "255.255.255.255", "fe80::1", "ff02::1",
                           "::ffff:169.254.169.254", "192.0.2.1"})
    EXPECT_EQ(KindOf(text), AddressKind::kNever) << text;
}

TEST(Proxies, AreLeftOutForWhatNoProxyNames) {
  ProxySettings settings{"http://secure:1", "http://plain:2",
                         "example.com, .lan,10.0.0.0/8,::1,host:5000"};
  const auto through = [&](const char* url) { return ProxyFor(settings, *ParseUrl(url)); };
  EXPECT_EQ(through("https://other.org/"), "http://secure:1");
  EXPECT_EQ(through("http://other.org/"), "http://plain:2");
  for (const char* url : {"https://example.com/", "https://a.example.com/", "https://x.lan/",
                          "https://10.200.3.4/", "https://[::1]/", "http://host:5000/"})
    EXPECT_EQ(through(url), "") << url;
  for (const char* url : {"https://notexample.com/", "https://11.0.0.1/", "https://host/"})
    EXPECT_EQ(through(url), "http://secure:1") << url;
  settings.no_proxy = "*";
  EXPECT_EQ(through("https://other.org/"), "");
}

TEST(Challenges, BearerIsPreferredAndQuotesAreRead) {
  const auto one = ChooseChallenge(
      {R"(Basic realm="a, b", Bearer realm="https://auth/token",service="r \"x\"",scope="s,t")"});
  ASSERT_TRUE(one.has_value());
  EXPECT_EQ(one->scheme, AuthChallenge::Scheme::kBearer);
  EXPECT_EQ(one->realm, "https://auth/token");
  EXPECT_EQ(one->service, "r \"x\"");
  EXPECT_EQ(one->scope, "s,t");
  EXPECT_EQ(ChooseChallenge({"Negotiate", "basic realm=x"})->scheme, AuthChallenge::Scheme::kBasic);
  EXPECT_FALSE(ChooseChallenge({"Digest realm=\"x\", nonce=\"Bearer realm=y\""}).has_value());
  EXPECT_FALSE(ChooseChallenge({"Bearer service=\"no realm\""}).has_value());
  EXPECT_FALSE(ChooseChallenge({"", "=", "\"", "Bearer realm=\"", ",,,="}).has_value());
}

TEST(Tokens, AreAskedForThisRepositoryAlone) {
  const AuthChallenge challenge{AuthChallenge::Scheme::kBearer, "https://auth/token?a=b", "reg",
                                "repository:other:pull,push"};
  const auto request = MakeTokenRequest(challenge, {"me", "secret", "", ""}, "team/app");
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->url.ToString(),
            "https://auth/token?a=b&service=reg&scope=repository%3Ateam%2Fapp%3Apull&account=me");
  EXPECT_EQ(request->authorization, "Basic " + Base64Encode("me:secret"));
  const auto anonymous = MakeTokenRequest(challenge, {}, "team/app");
  EXPECT_EQ(anonymous->authorization, "");
  const auto refresh = MakeTokenRequest(challenge, {"", "", "r&r", ""}, "team/app");
  EXPECT_EQ(refresh->authorization, "");
  EXPECT_NE(refresh->form_body->find("refresh_token=r%26r"), std::string::npos);
}

TEST(Tokens, AnswersThatCouldNotBeAHeaderAreRefused) {
  EXPECT_EQ(*ParseTokenReply(R"({"token":"t0k","access_token":"other"})"), "t0k");
  EXPECT_EQ(*ParseTokenReply(R"({"access_token":"t1"})"), "t1");
  for (const char* bad : {"", "[]", "{}", R"({"token":""})", R"({"token":"a\r\nHost: x"})",
                          R"({"token":5})", R"({"token":"a b"})"}) {
    EXPECT_FALSE(ParseTokenReply(bad).ok()) << bad;
  }
}

TEST(RegistryLogins, AreReadAsDockerWritesThem) {
  const std::string auth = Base64Encode("bob:p:w");
  const auto logins = RegistryLogins::Parse(
      R"({"auths":{"https://index.docker.io/v1/":{"auth":")" + auth +
      R"("},"Reg.Example:5000":{"username":"u","password":"p"},"helper.example":{},)"
      R"("https://idp.example/path":{"identitytoken":"idt"}},"credsStore":"x"})");
  ASSERT_TRUE(logins.ok()) << logins.error().message;
  EXPECT_EQ(logins->Find("docker.io").username, "bob");
  EXPECT_EQ(logins->Find("docker.io").password, "p:w");
  EXPECT_EQ(logins->Find("reg.example:5000").password, "p");
  EXPECT_TRUE(logins->Find("reg.example").empty());
  EXPECT_TRUE(logins->Find("helper.example").empty());
  EXPECT_EQ(logins->Find("idp.example").identity_token, "idt");
}

TEST(RegistryLogins, APasswordMayBeAWholeDocument) {
  const std::string key = "{\n  \"private_key\": \"a:b\"\n}\n";
  const auto login = ParseBasicAuth(Base64Encode("_json_key:" + key));
  ASSERT_TRUE(login.ok());
  EXPECT_EQ(login->password, key);
  EXPECT_EQ(BasicAuthorization(*login).find('\n'), std::string::npos);
  EXPECT_FALSE(ParseBasicAuth(Base64Encode("two\nlines:x")).ok());
  EXPECT_FALSE(ParseBasicAuth(Base64Encode(std::string("u:a\0b", 5))).ok());
}

TEST(RegistryLogins, BadOnesAreNamedWithoutTheirSecrets) {
  for (const std::string bad :
       {R"({"auths":{"h":{"auth":"c2VjcmV0"}}})", R"({"auths":{"h":{"auth":"?secret?"}}})",
        R"({"auths":{"h":"secret"}})", R"({"auths":{"h":{"username":"a\nsecret"}}})"}) {
    const auto logins = RegistryLogins::Parse(bad);
    ASSERT_FALSE(logins.ok()) << bad;
    EXPECT_NE(logins.error().message.find("for h"), std::string::npos);
    EXPECT_EQ(logins.error().message.find("secret"), std::string::npos);
  }
  EXPECT_FALSE(RegistryLogins::Parse("[]").ok());
  EXPECT_FALSE(RegistryLogins::Parse("{\"auths\":[]}").ok());
}

TEST(Base64, GoesBothWays) {
  for (const std::string text : {"", "a", "ab", "abc", "abcd", "\xff\x00\xfe"}) {
    EXPECT_EQ(Base64Decode(Base64Encode(text)), text);
  }
  EXPECT_EQ(Base64Encode("user:pass"), "dXNlcjpwYXNz");
  EXPECT_EQ(Base64Decode("dXNlcjpwYXNzMQ"), "user:pass1");  // no padding
  for (const char* bad : {"a", "a*bc", "ab=c", "abc ", "dXN\n"}) {
    EXPECT_FALSE(Base64Decode(bad).has_value()) << bad;
  }
}

TEST(RegistryUrls, AreSecureUnlessNamed) {
  const auto url = [](const char* name, const std::vector<std::string>& plain) {
    return RegistryUrl(*ParseImageRef(name), plain)->ToString();
  };
  EXPECT_EQ(url("localhost:5000/a/b:1", {}), "https://localhost:5000/v2/a/b/");
  EXPECT_EQ(url("localhost:5000/a/b:1", {"localhost:5000"}), "http://localhost:5000/v2/a/b/");
  EXPECT_EQ(url("localhost:5001/a:1", {"localhost:5000"}), "https://localhost:5001/v2/a/");
  EXPECT_TRUE(url("hello", {}).ends_with("/v2/library/hello/"));
}

bool Covers(const Reach& reach, const char* text) {
  const sockaddr_storage address = AddressOf(text);
  return reach.Covers(reinterpret_cast<const sockaddr&>(address));
}

TEST(NetworkPrefixes, HoldWhatBeginsAsTheyDo) {
  const auto holds = [](const char* prefix, const char* text) {
    const sockaddr_storage address = AddressOf(text);
    return ParseNetworkPrefix(prefix)->Contains(reinterpret_cast<const sockaddr&>(address));
  };
  EXPECT_TRUE(holds("192.168.1.0/24", "192.168.1.255"));
  EXPECT_FALSE(holds("192.168.1.0/24", "192.168.2.0"));
  EXPECT_TRUE(holds("10.1.2.3", "::ffff:10.1.2.3")) << "the same address, written otherwise";
  EXPECT_TRUE(holds("0.0.0.0/0", "8.8.8.8"));
  EXPECT_FALSE(holds("0.0.0.0/0", "2001:db8::1"));
  EXPECT_TRUE(holds("fd00::/8", "fdff::1"));
  EXPECT_FALSE(holds("fd00::/8", "fc00::1"));
  for (const char* text : {"", "x", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0/8",
                           "fd00::1/8", "fd00::/129", "10.0.0.0/", "10.0.0.0 /8", "[::1]"}) {
    EXPECT_FALSE(ParseNetworkPrefix(text).has_value()) << text;
  }
}

TEST(Reach, IsPublicButForWhatIsListed) {
  Reach reach;
  reach.most_private = AddressKind::kPublic;
  reach.refused = {*ParseNetworkPrefix("203.0.114.7"), *ParseNetworkPrefix("10.0.0.9")};
  reach.allowed = {*ParseNetworkPrefix("10.0.0.0/8")};
  EXPECT_TRUE(Covers(reach, "1.1.1.1"));
  EXPECT_FALSE(Covers(reach, "203.0.114.7")) << "public, but the board's own";
  EXPECT_TRUE(Covers(reach, "10.0.0.9")) << "opened by name";
  for (const char* text : {"127.0.0.1", "::1", "169.254.169.254", "192.168.1.1", "fe80::1",
                           "::ffff:127.0.0.1", "64:ff9b::7f00:1", "224.0.0.1", "0.0.0.0"}) {
    EXPECT_FALSE(Covers(reach, text)) << text;
  }
}

FetchOrder SampleOrder() {
  FetchOrder order;
  order.kind = FetchKind::kBlobs;
  order.ref = "localhost:5000/a:1";
  order.login = {"u", "p", "i", "r"};
  order.plain_http = {"localhost:5000", "b"};
  order.proxies = {"http://p", "", "*"};
  order.max_bytes = 100;
  order.host = {{"linux", "arm64", ""}, Arm32::kRuns};
  order.blobs = {{*ParseDigest("sha256:" + std::string(64, 'a')), 60, 40}};
  order.post = {"http://h/", 5, 7, {*ParseNetworkPrefix("10.0.0.0/8")}, std::chrono::seconds(9)};
  return order;
}

TEST(FetchOrders, SurviveTheTripAndNothingElseDoes) {
  const std::string bytes = SampleOrder().Encode();
  const auto back = FetchOrder::Decode(bytes);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->Encode(), bytes);
  EXPECT_EQ(back->blobs.at(0).offset, 40u);
  EXPECT_EQ(back->post.networks, SampleOrder().post.networks);
  EXPECT_EQ(back->post.time_limit, std::chrono::seconds(9));
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(FetchOrder::Decode(std::string_view(bytes).substr(0, size)).has_value());
  }
  EXPECT_FALSE(FetchOrder::Decode(bytes + "x").has_value());
  FetchOrder outside = SampleOrder();
  outside.blobs[0].offset = 41;
  EXPECT_FALSE(FetchOrder::Decode(outside.Encode()).has_value());
}

TEST(NetworkPrefix, IsWidenedToItsFirstBits) {
  const NetworkPrefix one = *ParseNetworkPrefix("2001:db8:1:2:ffff::5");
  EXPECT_EQ(Widened(one, 64), *ParseNetworkPrefix("2001:db8:1:2::/64"));
  EXPECT_EQ(Widened(one, 61), *ParseNetworkPrefix("2001:db8:1::/61"));
  EXPECT_EQ(Widened(one, 128), one);
  EXPECT_EQ(Widened(*ParseNetworkPrefix("2001:db8::/32"), 64),
            *ParseNetworkPrefix("2001:db8::/32"));
}

}  // namespace
}  // namespace pulga
