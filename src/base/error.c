/* error.c - texts of results; see weir/base.h. */
#include <weir/base.h>

#define STR_(x) #x
#define STR(x)  STR_(x)

const char *weir_version(void)
{
    return STR(WEIR_VERSION_MAJOR) "." STR(WEIR_VERSION_MINOR) "." STR(WEIR_VERSION_PATCH);
}

const char *weir_strerror(int error)
{
    switch (error) {
    case WEIR_OK: return "no error";
#define X(name, value, text)                                                                       \
    case value: return text;
        WEIR_ERROR_MAP(X)
#undef X
    default: return "unknown error";
    }
}

const char *weir_error_name(int error)
{
    switch (error) {
    case WEIR_OK: return "WEIR_OK";
#define X(name, value, text)                                                                       \
    case value: return "WEIR_" #name;
        WEIR_ERROR_MAP(X)
#undef X
    default: return "WEIR_?";
    }
}
