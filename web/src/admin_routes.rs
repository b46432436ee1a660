//! The routes of `darkroom.v1.Admin`.

use crate::route::{Route, json_routes};

/// All of them.
pub(crate) fn routes() -> Vec<Route> {
    json_routes! { admin:
        Post "/keys" CREATE_KEY create_key(CreateKeyRequest) -> CreateKeyResponse 201 body;
        Get "/keys" LIST_KEYS list_keys(ListKeysRequest) -> ListKeysResponse 200 query;
        Delete "/keys/{key}" REVOKE_KEY revoke_key(RevokeKeyRequest) -> Key 200 query, "key" = id;
        Post "/keys/{key}/rotations" ROTATE_KEY
            rotate_key(RotateKeyRequest) -> RotateKeyResponse 201 maybe_body, "key" = id;
        Get "/tenants" LIST_TENANTS
            list_tenants(ListTenantsRequest) -> ListTenantsResponse 200 query;
        Get "/tenants/{tenant}" GET_TENANT
            get_tenant(GetTenantRequest) -> Tenant 200 query, "tenant" = name;
        Patch "/tenants/{tenant}" SET_TENANT
            set_tenant(SetTenantRequest) -> Tenant 200 body, "tenant" = name;
        Get "/retention" GET_RETENTION
            get_retention(GetRetentionRequest) -> GetRetentionResponse 200 query;
        Put "/retention" SET_RETENTION
            set_retention(SetRetentionRequest) -> RetentionPolicy 200 body;
        Post "/cleanings" CLEAN_FARM
            clean_farm(CleanFarmRequest) -> CleanFarmResponse 200 maybe_body;
        Get "/audit" LIST_AUDIT list_audit(ListAuditRequest) -> ListAuditResponse 200 query;
    }
}
