#error "renamed: include runtime/engine.h, class Engine (struct Platform is images/image.h's)"
