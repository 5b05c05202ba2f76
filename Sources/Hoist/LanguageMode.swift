// A feature that is misspelled in Package.swift is ignored in silence; here it is noticed.
#if !hasFeature(ExistentialAny)
#error("ExistentialAny is off")
#endif
#if !hasFeature(MemberImportVisibility)
#error("MemberImportVisibility is off")
#endif
#if !hasFeature(InternalImportsByDefault)
#error("InternalImportsByDefault is off")
#endif
#if !hasFeature(NonisolatedNonsendingByDefault)
#error("NonisolatedNonsendingByDefault is off")
#endif
