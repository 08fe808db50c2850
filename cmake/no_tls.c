/* The GnuTLS functions that libmicrohttpd's archive refers to. It calls them for connections of a
   daemon started with MHD_USE_TLS, which ours never is; linking this instead of GnuTLS keeps eight
   libraries out of the process. A libmicrohttpd that needs another one fails to link, and one that
   calls any of them ends here. */
#include <stdio.h>
#include <stdlib.h>

#define NO_TLS __attribute__((visibility("hidden")))

NO_TLS int gnutls_global_init(void);
NO_TLS int gnutls_global_init(void) { return 0; }
NO_TLS void gnutls_global_deinit(void);
NO_TLS void gnutls_global_deinit(void) {}

#define NEVER(name)                                         \
  NO_TLS _Noreturn void name(void);                         \
  NO_TLS _Noreturn void name(void) {                        \
    fputs("pulga: " #name " called without TLS\n", stderr); \
    abort();                                                \
  }

NEVER(gnutls_alpn_set_protocols)
NEVER(gnutls_bye)
NEVER(gnutls_certificate_allocate_credentials)
NEVER(gnutls_certificate_free_credentials)
NEVER(gnutls_certificate_server_set_request)
NEVER(gnutls_certificate_set_dh_params)
NEVER(gnutls_certificate_set_retrieve_function2)
NEVER(gnutls_certificate_set_retrieve_function3)
NEVER(gnutls_certificate_set_x509_key_mem)
NEVER(gnutls_certificate_set_x509_key_mem2)
NEVER(gnutls_certificate_set_x509_trust_mem)
NEVER(gnutls_cipher_get)
NEVER(gnutls_credentials_set)
NEVER(gnutls_deinit)
NEVER(gnutls_dh_params_deinit)
NEVER(gnutls_dh_params_import_pkcs3)
NEVER(gnutls_dh_params_init)
NEVER(gnutls_handshake)
NEVER(gnutls_init)
NEVER(gnutls_priority_deinit)
NEVER(gnutls_priority_init)
NEVER(gnutls_priority_set)
NEVER(gnutls_protocol_get_version)
NEVER(gnutls_psk_allocate_server_credentials)
NEVER(gnutls_psk_free_server_credentials)
NEVER(gnutls_psk_set_server_credentials_function)
NEVER(gnutls_record_check_pending)
NEVER(gnutls_record_get_direction)
NEVER(gnutls_record_recv)
NEVER(gnutls_record_send)
NEVER(gnutls_session_get_ptr)
NEVER(gnutls_session_set_ptr)
NEVER(gnutls_strerror)
NEVER(gnutls_transport_set_int2)

/* A variable there, a pointer to the allocator. */
NO_TLS extern void* (*gnutls_malloc)(size_t);
void* (*gnutls_malloc)(size_t) = malloc;
